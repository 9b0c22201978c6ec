"""Studies: arms x values x seeds that test a claim, from the declaration to the verdict."""
