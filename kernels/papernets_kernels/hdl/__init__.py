"""Small accelerators in Amaranth: cores, their cycle laws, golden models, and two engines that simulate them."""
