"""What `drumbeat doctor` examines: samples, labels, images, copies and leaks between sets, texts, speed."""
