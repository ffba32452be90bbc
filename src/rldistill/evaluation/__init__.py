"""What an evaluation found: records, table, file, pairing of students with teachers, and the gate."""
