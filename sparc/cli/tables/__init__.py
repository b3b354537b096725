"""Tables of measurements, as commands print them."""
