"""Quality: is the model still good at long context when its attention is sparse?"""
