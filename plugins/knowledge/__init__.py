"""What does the model know, and where should it stop?"""
