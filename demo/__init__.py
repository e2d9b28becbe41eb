"""`make demo`: the loop turns in front of you, driven through HTTP, Label Studio and the command line only."""
