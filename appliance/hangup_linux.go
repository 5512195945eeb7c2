package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

// openHangUp makes SIGHUP read again what a.reloads names: without it the signal would end the program.
func (a *appliance) openHangUp() {
	hangUp := make(chan os.Signal, 1)
	signal.Notify(hangUp, syscall.SIGHUP)
	a.closers = append(a.closers, func() error { signal.Stop(hangUp); return nil })
	a.parts = append(a.parts, func(ctx context.Context) error {
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-hangUp:
			}
			for _, again := range a.reloads {
				again()
			}
		}
	})
}
