//go:build !linux

package postgres

import "syscall"

// attributes lets the packages that use this one be checked for other systems; their tests run on Linux.
func attributes(*account) *syscall.SysProcAttr { return nil }
