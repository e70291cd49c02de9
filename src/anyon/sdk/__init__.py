"""The typed client and the wire's models; imports nothing of ours."""
