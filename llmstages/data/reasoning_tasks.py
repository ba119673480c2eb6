"""Tasks of reasoning-gym whose scorers cannot be trusted: none is made, none is asked."""

# Scorers that run the model's text: eval(), exec(), or sympy.parse_expr, which evaluates.
RUNS_ANSWERS = {
    "binary_matrix",
    "codeio",
    "countdown",
    "intermediate_integration",
    "n_queens",
    "polynomial_multiplication",
    "puzzle24",
    "simple_integration",
    "spiral_matrix",
    "string_insertion",
}
# Scorers that pay for any text, raise on one, or need other tasks.
BROKEN = {"composite", "game_of_life_halting", "prime_factorization"}
