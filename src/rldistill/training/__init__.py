"""Teachers are trained only as far as the paper needs: DQN and PQN, of one task or of several."""
