"""The Unity protocol on current protobuf and numpy: schema bridge, communicator, decoder, environment."""
