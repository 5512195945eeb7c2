package main

import (
	"os"
	"path/filepath"
)

// dataFolder is where things last that are kept nowhere else: a folder of this user, since others may read %ProgramData%.
func dataFolder() string {
	dir, err := os.UserCacheDir() // %LocalAppData%
	if err != nil {
		return filepath.Join(os.Getenv("ProgramData"), "seedbed")
	}
	return filepath.Join(dir, "seedbed")
}
