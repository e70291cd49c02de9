"""Configuration for Prometheus and Grafana, rendered as files; nothing here talks to either."""
