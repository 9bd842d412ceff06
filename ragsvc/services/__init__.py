"""What ragsvc does, in terms of the ports and the store; knows neither HTTP nor settings."""
