"""HTTP policy: errors, the body's parser, the renderer, shapes of answers, OpenAPI."""
