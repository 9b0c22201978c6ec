"""Multi-head attention, to be read in this order:

1. `multi_head.py`: the module: queries, keys and values of every head, softmax(q k^T / sqrt(K)) v, output projection
2. `projections.py`: how the heads' queries, keys and values are made: split, grouped, or with weights left out
3. `masks.py`: which keys a query may attend to: global, window, sentence, causal; a window computed in blocks
4. `kernels.py`: scaled dot-product attention written out, and by torch's fused kernels
5. `positions.py`: sinusoidal, learned and rotary positions
6. `cache.py`: keys and values kept while decoding token by token
7. `record.py`: the weights and outputs of one forward pass, for attention maps
8. `convert.py`: weights from split to grouped heads and back
"""
