"""The composition root: settings to drivers to services to loops to app.

The only room that names a driver. ``assembly`` builds, ``serve`` runs, ``doctor`` examines.
"""
