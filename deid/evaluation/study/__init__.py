"""The human study: a page that asks people about pictures, and the figures of what they answered."""
