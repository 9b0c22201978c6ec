"""From a trained model to text: greedy and beam search, scores of given translations, prediction on new texts."""
