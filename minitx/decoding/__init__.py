"""From a trained model to text: greedy and beam search, scores of given translations, answers to new texts."""
