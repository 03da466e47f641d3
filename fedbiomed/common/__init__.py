"""What both sides mean by a word; knows neither side."""
