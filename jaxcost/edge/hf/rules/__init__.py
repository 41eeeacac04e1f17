"""Rules that rows of families name: patterns of layers, widths, recurrent mixers."""
