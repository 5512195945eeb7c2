//go:build !linux

package main

import "path/filepath"

// configPath is the configuration file that is read unless another one is named.
func configPath() string { return filepath.Join(dataFolder(), "seedbed.yaml") }
