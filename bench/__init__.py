"""`make bench`: every figure that the README claims, from commands that anyone can run again."""
