package console

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"seedbed/appliance/api"
	"seedbed/appliance/fleet"
	"seedbed/images"
)

// Spool keeps a disk that comes as a stream as a file, until remove is called. It checks that there is room for length bytes, if that is
// known (not negative). Safe for concurrent use.
type Spool func(r io.Reader, length int64) (path string, remove func(), err error)

// uploadPath takes disks; their length is bounded by the room that the appliance has.
const uploadPath = "/images/upload"

// uploadSilence is how long an upload may bring nothing.
const uploadSilence = time.Minute

// uploadDialog asks for the disk and the image's name.
func uploadDialog(c *console, v *visit) (*answer, error) {
	if c.Spool == nil {
		return nil, &fleet.Refusal{Code: fleet.CodeInvalid, Detail: text("this appliance takes no uploads; use `seedbed image add` on its host")}
	}
	return show("images", "upload", nil), nil
}

// upload takes a raw disk as the body of a request, and begins to make an image of it.
func upload(c *console, v *visit) (_ *answer, err error) {
	name, version := strings.TrimSpace(v.URL.Query().Get("name")), strings.TrimSpace(v.URL.Query().Get("version"))
	switch {
	case c.Spool == nil:
		return uploadDialog(c, v)
	case !images.ValidName(name):
		return nil, &fleet.Refusal{Code: fleet.CodeInvalid, Detail: text("an image's name has 1 to 64 of a-z, 0-9, dot, underscore and hyphen, and begins with a letter or digit")}
	case version != "" && !images.ValidName(version):
		return nil, &fleet.Refusal{Code: fleet.CodeInvalid, Detail: text("a version has 1 to 64 of a-z, 0-9, dot, underscore and hyphen, and begins with a letter or digit; leave it empty for the next number")}
	case v.ContentLength == 0:
		return nil, &fleet.Refusal{Code: fleet.CodeInvalid, Detail: text("the file is empty; choose a file with a raw disk")}
	}
	if version != "" {
		if _, err := c.Images.Show(v.Context(), name+":"+version); err == nil {
			return nil, &fleet.Refusal{Code: fleet.CodeVersionExists, Detail: v.t("there is an image %s already, and versions never change; choose another", name+":"+version)}
		}
	}
	full := v.URL.Query().Get("full") != ""
	path, remove, err := c.Spool(&patient{v.Body, http.NewResponseController(v.w)}, v.ContentLength)
	if err != nil {
		if v.Context().Err() != nil { // who uploads left
			return nil, nil
		}
		if _, refused := errors.AsType[*fleet.Refusal](err); refused {
			return nil, err
		}
		return nil, &fleet.Refusal{Code: fleet.CodeInvalid, Detail: v.t("the disk did not come through: %s", err.Error())}
	}
	about := name
	if version != "" {
		about += ":" + version
	}
	_, err = c.works.begin(v.Context(), taking, about, func(ctx context.Context, progress func(api.Progress)) (any, error) {
		defer remove()
		d, err := c.Images.Add(ctx, api.ImageOrder{Path: path, Name: name, Version: version, Full: full}, progress)
		if err != nil {
			return nil, err
		}
		text := fmt.Sprintf("image %s:%s was made of a disk that was uploaded", d.Manifest.Name, d.Manifest.Version)
		return d, c.Fleet.Note(context.WithoutCancel(ctx), "image.added", text)
	})
	if err != nil {
		remove()
		return nil, err
	}
	return goTo("/images", v.t("The disk is here; the image is being made.")), nil
}

// patient reads a body that may take hours, but not be silent for long.
type patient struct {
	r     io.Reader
	until *http.ResponseController
}

func (p *patient) Read(b []byte) (int, error) {
	_ = p.until.SetReadDeadline(time.Now().Add(uploadSilence)) // a test's recorder has none
	return p.r.Read(b)
}

// number reads a positive whole number, 0 for what is none.
func number(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 {
		return 0
	}
	return n
}
