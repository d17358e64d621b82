"""What a trained model makes of samples: predictions, metrics, plots and tables."""
