"""What the loop is: pictures, answers, questions, annotations, training and releases. No web framework lives here."""
