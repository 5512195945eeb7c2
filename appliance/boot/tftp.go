package boot

import (
	"bytes"
	"context"
	"path"
	"strings"

	"seedbed/appliance/bootdoctor"
	"seedbed/appliance/tftp"
	script "seedbed/bootloader-configs"
)

// Names of scripts at any path: programs look for them beside themselves.
const (
	nameAutoexec = "autoexec.ipxe" // iPXE 2023 and later
	nameGRUB     = "grub.cfg"      // signed GRUB: /grub/grub.cfg
)

// OpenTFTP serves the loaders and the start scripts, nothing else. It is the tftp.Opener.
func (s *Server) OpenTFTP(ctx context.Context, r tftp.Request) (*tftp.File, error) {
	name := path.Base(r.Name)
	client := r.Client.Addr().Unmap()
	if b, ok := s.cfg.Files.loaders[name]; ok {
		mac, known := s.machineOf(r.Name, client)
		if name != fileGRUB {
			s.conns.drop(client)
		}
		f := &tftp.File{ReadSeeker: bytes.NewReader(b)}
		if known {
			f.Sent = func() { s.fetched(ctx, mac, client, name) }
			f.Ended = s.transfer(mac, bootdoctor.Step{Kind: bootdoctor.TFTP, By: bootdoctor.ByFirmware, Loader: string(loaderOf(name)), File: r.Name, Length: int64(len(b))})
		}
		return f, nil
	}
	n, ok := startScript(name)
	mac, known := s.machineOf(r.Name, client)
	step := bootdoctor.Step{Kind: bootdoctor.TFTP, By: bootdoctor.ByFirmware, File: r.Name}
	if !ok {
		if known {
			step.Problem = bootdoctor.ProblemMissing
			s.note(mac, step)
		}
		return nil, tftp.ErrNotFound
	}
	p, err := s.params(r.Local)
	if err != nil {
		return nil, err
	}
	text, err := script.Render(n, p)
	if err != nil {
		return nil, err
	}
	f := &tftp.File{ReadSeeker: strings.NewReader(text)}
	if known {
		step.Length = int64(len(text))
		f.Ended = s.transfer(mac, step)
	}
	return f, nil
}

// startScript returns the script that a file name stands for at any path.
func startScript(name string) (script.Name, bool) {
	switch name {
	case nameAutoexec:
		return script.IPXEStart, true
	case nameGRUB:
		return script.GRUBStart, true
	}
	return "", false
}
