"""What attention is held against: convolutions, an LSTM with additive attention, a bag of n-grams, TF-IDF."""
