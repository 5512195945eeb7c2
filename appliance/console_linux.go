package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"

	"github.com/spf13/cobra"

	"seedbed/appliance/console"
	"seedbed/appliance/doctor"
	"seedbed/appliance/fleet"
	"seedbed/appliance/job"
	"seedbed/images/repository"
)

// openConsole makes the web console, and adds the work that people begin there to what runs.
func (a *appliance) openConsole() (http.Handler, error) {
	works := console.NewWorks()
	a.parts = append(a.parts, works.Run)
	return console.New(console.Config{
		Fleet: a.fleet, Operators: a.operators, Monitor: a.monitor, Alerts: a.alerts, Images: a.lib, Program: programVersion(), Log: a.log, Works: works, Spool: a.spoolUpload, Examine: a.examine,
	})
}

// examine looks at the network as `seedbed doctor --probe` does, from inside: its flags are those of this appliance.
func (a *appliance) examine(ctx context.Context) (*doctor.Report, error) {
	cmd := &cobra.Command{}
	cmd.SetContext(ctx)
	d := &examination{o: &options{data: a.config.Data}, cmd: cmd, c: a.config, probe: true, patience: lookPatience, log: slog.New(slog.DiscardHandler)}
	d.began()
	var err error
	if d.client, err = d.o.client(nil); err != nil {
		return nil, err
	}
	defer d.client.Close()
	d.add(d.bounded(ctx, look{"service", d.lookService}))
	looks := []look{{"port", d.lookPorts}, {"network", d.lookNetwork}}
	if !a.config.NoBoot {
		looks = append(looks, look{"dhcp", d.lookDHCP}, look{"boot files", d.lookBootFiles})
	}
	d.each(ctx, append(looks, look{"room", d.lookRoom}, look{"certificate", d.lookCertificates}))
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return &d.report, nil
}

// lookAtRoomEvery is how many bytes of an upload are written between looks at what is free.
const lookAtRoomEvery = 64 << 20

// spoolUpload keeps a disk that somebody uploads as a sparse file. It ends before the appliance lacks room to write.
func (a *appliance) spoolUpload(r io.Reader, length int64) (path string, remove func(), err error) {
	if err := enoughRoom(a.config.Data, length); err != nil {
		return "", nil, err
	}
	f, err := createSpooled(importSpool(a.config.Data))
	if err != nil {
		return "", nil, fmt.Errorf("keep the disk that is uploaded: %w", err)
	}
	remove = func() {
		os.Remove(f.Name())
		f.Close()
	}
	if err := spool(f, &roomyReader{r: r, dir: a.config.Data}, func(int64) {}); err != nil {
		remove()
		return "", nil, err
	}
	if st, err := f.Stat(); err != nil || length >= 0 && st.Size() != length {
		remove()
		return "", nil, &fleet.Refusal{Code: fleet.CodeInvalid, Detail: fmt.Sprintf("the upload broke off: %s of %s came; send the disk again", bytesText(sizeOf(st)), bytesText(length))}
	}
	return f.Name(), remove, nil
}

// enoughRoom refuses a disk of so many bytes that the folder's file system has no room for, before any of it is taken. A negative
// length is not known: then roomyReader alone looks.
func enoughRoom(dir string, length int64) error {
	free, _, err := repository.RoomIn(dir)
	if err != nil {
		return fmt.Errorf("look whether there is room for the disk: %w", err)
	}
	if need := length + leastRoom + lookAtRoomEvery; length >= 0 && free < need {
		return &fleet.Refusal{Code: job.CodeRepositoryFull, Detail: fmt.Sprintf("there is no room to take this disk of %s: %s are needed in %s, %s are free; remove images that nobody needs, or use `seedbed image add` with the disk at the appliance, which needs no room for a copy", bytesText(length), bytesText(need), dir, bytesText(free))}
	}
	return nil
}

// sizeOf is the length of a file, 0 where it is not known.
func sizeOf(st os.FileInfo) int64 {
	if st == nil {
		return 0
	}
	return st.Size()
}

// roomyReader reads as long as a folder's file system has room for what is read.
type roomyReader struct {
	r    io.Reader
	dir  string
	left int64 // bytes until the next look
}

func (r *roomyReader) Read(b []byte) (int, error) {
	if r.left <= 0 {
		free, _, err := repository.RoomIn(r.dir)
		if err != nil {
			return 0, err
		}
		if free < leastRoom+lookAtRoomEvery {
			return 0, &fleet.Refusal{Code: fleet.CodeInvalid, Detail: fmt.Sprintf("there is no room for this disk: %s are free; make room, or use `seedbed image add` with the disk at the appliance", bytesText(free))}
		}
		r.left = lookAtRoomEvery
	}
	n, err := r.r.Read(b)
	r.left -= int64(n)
	return n, err
}
