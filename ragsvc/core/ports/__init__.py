"""The ports: protocols that services need and adapters implement. One contract suite tests each."""
