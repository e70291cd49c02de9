"""The composition root: settings to drivers to services to loops to app."""
