"""`make demo`: the loop turns in front of you. It uses the product only through HTTP, Label Studio and the command line."""
