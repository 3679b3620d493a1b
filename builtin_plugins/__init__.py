"""The plugins that come with mlhooks; each could have been written by a third party."""
