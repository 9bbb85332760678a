"""What a trained run says of files of one's own."""
