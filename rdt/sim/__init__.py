"""The real LIBERO simulator: resets, lazy pictures, scripted expert, episodes and videos.

Nothing here imports torch: simulator processes stay small and start fast.
"""
