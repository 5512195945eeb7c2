package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"seedbed/appliance/api"
	"seedbed/appliance/fleet"
	"seedbed/images/capture"
	"seedbed/images/fsmap"
	"seedbed/images/intake"
	"seedbed/images/parttable"
	"seedbed/images/repository"
	"seedbed/images/source"
	"seedbed/images/tile"
)

// parseCompression reads "zstd", "zstd:3", "lz4:9", "none"; "" is zstd.
func parseCompression(s string) (codec tile.Codec, level int, err error) {
	name, number, leveled := strings.Cut(s, ":")
	if s == "" {
		name = tile.Zstd.String()
	}
	if codec, err = tile.ParseCodec(name); err != nil || !leveled {
		return codec, 0, err
	}
	highest := map[tile.Codec]int{tile.Zstd: 22, tile.LZ4: 9}[codec]
	if level, err = strconv.Atoi(number); err != nil || level < 1 || level > highest {
		return codec, 0, fmt.Errorf("compression %.20q has no such level; choose zstd:1 to zstd:22 or lz4:1 to lz4:9", s)
	}
	return codec, level, nil
}

// Add implements api.Images.
func (l *library) Add(ctx context.Context, o api.ImageOrder, progress func(api.Progress)) (added *api.ImageDetail, err error) {
	codec, level, err := parseCompression(o.Compress)
	if err != nil {
		return nil, &fleet.Refusal{Code: fleet.CodeInvalid, Detail: err.Error()}
	}
	began := time.Now()
	path, remove, err := l.unpacked(ctx, o.Path)
	if err != nil {
		return nil, err
	}
	defer remove()
	isPacked, named := path != o.Path, o.Path
	if o.Path = path; isPacked {
		defer func() { err = about(err, path, named) }()
		o.TrustSource = false // it was read already
	}
	src, err := source.Open(ctx, path, source.Options{SectorLength: o.SectorLength, Live: o.Live})
	if err != nil {
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrPermission) {
			return nil, &fleet.Refusal{Code: fleet.CodeInvalid, Detail: err.Error() + "; name a disk or a disk file that the appliance can read"}
		}
		return nil, sourceRefusal(err)
	}
	defer func() {
		if err := src.Close(); err != nil {
			l.log.Warn("source not given back", "err", err)
		}
	}()
	session, err := l.repo.Begin(ctx, repository.SessionConfig{Name: o.Name, Version: o.Version, Sign: l.sign})
	if err != nil {
		return nil, sourceRefusal(err)
	}
	defer session.Close()
	var warnings []string
	if o.TrustSource {
		detail, why, err := l.addUnread(ctx, src, o, session)
		if err != nil || detail != nil {
			return detail, err
		}
		warnings = []string{"the source is read: " + why}
	}
	options := capture.Options{
		Codec: codec, Level: level, PieceLength: o.PieceLength, Partitions: o.Partitions, Full: o.Full, FullPartitions: o.FullPartitions,
		KeepContents: o.KeepContents, RefuseOpaque: o.RefuseEncrypted, Unchanged: src.Unchanged, Log: l.log,
	}
	if progress != nil {
		options.Progress = func(p capture.Progress) { progress(api.Progress{Done: p.Done, Total: p.Total}) }
	}
	result, err := capture.Disk(ctx, src, src.Length, src.SectorLength, session, options)
	if err != nil {
		return nil, sourceRefusal(err)
	}
	if isPacked { // what was unpacked is gone at once
	} else if err := l.rememberSource(src, o, result.Image, began); err != nil {
		l.log.Warn("the source will be read next time, even with --trust-source", "err", err)
	}
	detail, err := l.Show(ctx, result.Image.Digest.String())
	if err != nil {
		return nil, err
	}
	detail.Warnings = append(append(warnings, src.Warnings...), result.Warnings...)
	detail.Added = &api.Added{
		Format: src.Format, SourceRead: true, UsedLength: result.UsedLength, DataLength: result.DataLength, ZeroLength: result.ZeroLength,
		NewTiles: result.NewTiles, NewLength: result.NewLength, Dropped: result.Dropped,
	}
	return detail, nil
}

// about has a refusal speak of the file that was named, and not of what was unpacked of it, which is gone.
func about(err error, unpacked, named string) error {
	if r, ok := errors.AsType[*fleet.Refusal](err); ok {
		own := *r
		own.Detail = strings.ReplaceAll(r.Detail, unpacked, named)
		return &own
	}
	return err
}

// Codes of refusals about sources.
const (
	codeSourceInvalid = "source-invalid"
	codeSourceInUse   = "source-in-use"
	codeSourceChanged = "source-changed"
	codeImageBusy     = "image-busy"
)

// sourceRefusal gives the errors of a capture that an operator can act on their code and the remedy.
func sourceRefusal(err error) error {
	refuse := func(code, remedy string) error { return &fleet.Refusal{Code: code, Detail: err.Error() + remedy} }
	switch {
	case errors.Is(err, source.ErrInUse):
		return refuse(codeSourceInUse, "; --live takes it as it is")
	case errors.Is(err, source.ErrLocked):
		return refuse(codeSourceInUse, "")
	case errors.Is(err, source.ErrChanged):
		return refuse(codeSourceChanged, "")
	case errors.Is(err, parttable.ErrCut):
		return refuse(codeSourceInvalid, "; take a whole copy")
	case errors.Is(err, source.ErrFormat), errors.Is(err, source.ErrForeign), errors.Is(err, capture.ErrNoPartition),
		errors.Is(err, capture.ErrTooLarge):
		return refuse(codeSourceInvalid, "")
	case errors.Is(err, fsmap.ErrOpaque):
		return refuse(codeDirty, "; without --refuse-encrypted it is copied whole")
	case fsmap.Refused(err):
		return refuse(codeDirty, "; --full copies the partition whole, as it is")
	case errors.Is(err, intake.ErrBusy):
		return refuse(codeImageBusy, "")
	}
	return asRefusal(err)
}
