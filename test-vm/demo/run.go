package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"seedbed/test-vm/golden"
	"seedbed/test-vm/lab"
)

// diskLength is the length of the machines' disks in bytes: more than the image's, so that the backup table moves.
const diskLength = 1 << 30

type config struct {
	program, bootDir, dir string
	limit                 time.Duration
	hold                  bool
	out                   io.Writer
	log                   *slog.Logger
}

// seat is one machine of the demo and what became of it.
type seat struct {
	machine *lab.Machine
	boot    *lab.Boot
	on      time.Time // power on

	mu    sync.Mutex // guards login, err
	login time.Time  // zero before the prompt
	err   error
}

func (s *seat) done(at time.Time, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.login, s.err = at, err
}

func (s *seat) result() (time.Time, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.login, s.err
}

// run carries the demo out; an error says what did not work.
func run(ctx context.Context, c config) (err error) {
	began := time.Now()
	image, err := golden.Build(ctx, golden.Debian, golden.Config{Log: c.log})
	if err != nil {
		return err
	}
	if err := os.RemoveAll(c.dir); err != nil {
		return err
	}
	if err := os.MkdirAll(c.dir, 0o755); err != nil {
		return err
	}
	room, err := lab.Start(ctx, lab.Config{Dir: c.dir, Log: c.log})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, room.Close()) }()
	fmt.Fprintf(c.out, "an isolated network with a DHCP server that knows nothing of Seedbed; logs are in %s\n", c.dir)
	appliance, err := room.Appliance(c.program, c.bootDir)
	if err != nil {
		return err
	}
	if err := appliance.Start(ctx); err != nil {
		return err
	}
	start := time.Now()
	detail, err := appliance.AddImage(ctx, "golden", image)
	if err != nil {
		return err
	}
	fmt.Fprintf(c.out, "image golden: %s used, %s to send, captured in %.1f s\n", megabytes(detail.Manifest.UsedLength()),
		megabytes(detail.EncodedLength), time.Since(start).Seconds())
	if _, err := appliance.Command(ctx, "deploy", "golden", "--all"); err != nil {
		return err
	}
	before, err := room.Traffic(ctx)
	if err != nil {
		return err
	}
	limited, cancel := context.WithTimeout(ctx, c.limit)
	defer cancel()
	seats, err := switchOn(limited, room)
	if err != nil {
		return err
	}
	follow(limited, c.out, appliance, seats)
	if ctx.Err() != nil {
		return errors.New("interrupted")
	}
	after, err := room.Traffic(ctx)
	if err != nil {
		return err
	}
	result := printTable(ctx, c.out, appliance, seats)
	boot, err := bootFiles(c.bootDir, len(seats))
	if err != nil {
		return errors.Join(result, err)
	}
	content := after.Sent - before.Sent - boot
	fmt.Fprintf(c.out, "\nThe appliance sent %s of boot files and %s of everything else: %.2f images of %s for %d machines. All of it took %.0f s.\n",
		megabytes(boot), megabytes(content), float64(content)/float64(detail.EncodedLength), megabytes(detail.EncodedLength), len(seats), time.Since(began).Seconds())
	if c.hold && ctx.Err() == nil {
		hold(ctx, c.out, appliance, room)
	}
	return result
}

// bootFiles returns the bytes of kernel and initramfs, which each machine gets once.
func bootFiles(dir string, machines int) (n int64, err error) {
	for _, name := range []string{"vmlinuz", "initramfs.cpio.zst"} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			return 0, err
		}
		n += info.Size() * int64(machines)
	}
	return n, nil
}

// switchOn adds the three machines and switches them on at once.
func switchOn(ctx context.Context, room *lab.Lab) ([]*seat, error) {
	var seats []*seat
	for i, firmware := range []lab.Firmware{lab.BIOS, lab.UEFI, lab.SecureBoot} {
		name := fmt.Sprintf("room-%d", i+1)
		disk, err := room.EmptyDisk(name, diskLength)
		if err != nil {
			return nil, err
		}
		m, err := room.Machine(ctx, lab.MachineConfig{Name: name, Firmware: firmware, Disks: []lab.Disk{disk}})
		if err != nil {
			return nil, err
		}
		seats = append(seats, &seat{machine: m})
	}
	for _, s := range seats {
		b, err := s.machine.Start(lab.StartOptions{})
		if err != nil {
			return nil, err
		}
		s.boot, s.on = b, time.Now()
		go func() {
			err := b.WaitBoot(ctx, golden.LoginPrompt)
			s.done(time.Now(), err)
		}()
	}
	return seats, nil
}

// hold keeps everything as it is and says how to look at it.
func hold(ctx context.Context, out io.Writer, a *lab.Appliance, room *lab.Lab) {
	data, err := filepath.Abs(a.Data)
	if err != nil {
		data = a.Data
	}
	fmt.Fprintf(out, "\nthe lab stays until it is interrupted. Look at it from another terminal:\n  %s job ls --data %s\n  ip netns exec %s bash\n",
		a.Program, data, room.Namespace())
	<-ctx.Done()
}
