package main

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"

	"golang.org/x/sync/errgroup"
)

// chainPort is where a machine of the chain takes the content.
const chainPort = "7000"

// playChain passes the content on as it comes: a machine gets it from the one before and gives it to the next, in parts of a
// piece's length. Nothing is checked, and whoever fails ends it for all behind: the bound of what a schedule can reach.
func playChain(ctx context.Context, a *actor) error {
	last := a.Own == len(a.Addresses)-1
	var listener net.Listener
	var err error
	if a.Own > 0 {
		if listener, err = net.Listen("tcp", net.JoinHostPort(a.Addresses[a.Own], chainPort)); err != nil {
			return err
		}
		defer listener.Close()
		defer context.AfterFunc(ctx, func() { listener.Close() })()
	}
	if err := a.ready(ctx); err != nil {
		return err
	}
	var in io.Reader
	var file *os.File
	if a.Own == 0 {
		if file, err = os.Open(a.Content.raw()); err != nil {
			return err
		}
		in = file
	} else {
		if file, err = os.OpenFile(a.Disk, os.O_WRONLY, 0); err != nil {
			return err
		}
		conn, err := listener.Accept()
		if err != nil {
			return err
		}
		defer conn.Close()
		in = conn
	}
	defer file.Close()
	var next net.Conn
	if !last {
		if next, err = net.Dial("tcp", net.JoinHostPort(a.Addresses[a.Own+1], chainPort)); err != nil {
			return err
		}
		defer next.Close()
	}
	if err := a.forward(ctx, in, file, next); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

// chainBuffers is how many parts a machine of the chain holds for the next one.
const chainBuffers = 64

// forward reads parts, writes them to the file where this is not the source, and to next where there is one.
func (a *actor) forward(ctx context.Context, in io.Reader, file *os.File, next net.Conn) error {
	group, ctx := errgroup.WithContext(ctx)
	queue := make(chan []byte, chainBuffers)
	free := sync.Pool{New: func() any { return make([]byte, wantedPiece) }}
	group.Go(func() error {
		defer close(queue)
		for done := int64(0); done < a.Content.Length; {
			b := free.Get().([]byte)
			n, err := io.ReadFull(in, b[:min(wantedPiece, a.Content.Length-done)])
			if err != nil {
				return err
			}
			if a.Own > 0 {
				if _, err := file.WriteAt(b[:n], done); err != nil {
					return err
				}
			}
			done += int64(n)
			if a.Own > 0 {
				a.progress(float64(done) / float64(a.Content.Length))
			}
			select {
			case queue <- b[:n]:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if a.Own > 0 {
			a.tell(actorEvent{Event: "done"})
		}
		return nil
	})
	group.Go(func() error {
		for b := range queue {
			if next != nil {
				if _, err := next.Write(b); err != nil {
					return err
				}
			}
			free.Put(b[:wantedPiece])
		}
		return nil
	})
	if err := group.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}
