"""What `isotypic.testing` exports, by subject."""
