package api

import (
	"net/http"

	"seedbed/images/packed"
)

// PackedDisk implements DiskOutput over HTTP: a download of the whole disk, compressed. Owned by one goroutine.
type PackedDisk struct {
	Response http.ResponseWriter
	Name     string // of the file

	to     *packed.Writer
	length int64
}

// Begin implements DiskOutput. The length of the download is not known before its end.
func (d *PackedDisk) Begin(length, _ int64) (err error) {
	h := d.Response.Header()
	h.Set("Content-Type", packed.Kind)
	h.Set("Content-Disposition", `attachment; filename="`+d.Name+`"`)
	d.length = length
	d.to, err = packed.NewWriter(d.Response, length)
	return err
}

// Write implements DiskOutput.
func (d *PackedDisk) Write(offset int64, b []byte) error { return d.to.Write(offset, b) }

// Finish ends the disk, once it was written whole.
func (d *PackedDisk) Finish() error { return d.to.Finish(d.length) }

// Begun reports whether something may be on the way already.
func (d *PackedDisk) Begun() bool { return d.to != nil }
