"""The colours of curves and films."""

# Okabe and Ito's palette: told apart by people with any kind of colour vision, and in grey.
TEACHER_COLOUR = "#0072B2"
STUDENT_COLOUR = "#D55E00"
RANDOM_COLOUR = "#6E6E6E"
POLICY_COLOURS = (TEACHER_COLOUR, STUDENT_COLOUR, "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
# As many as the paper has games: four more, of Tol's muted ones.
TASK_COLOURS = (*POLICY_COLOURS, "#332288", "#882255", "#999933", "#444444")
