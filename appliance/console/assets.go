package console

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"net/http"
	"path"
	"strings"
	"time"
)

// static has vendor/, which `make console` fills from npm packages; without that the program builds, and its pages do without.
//
//go:embed all:static
var static embed.FS

// kinds are the media types of the files that there are, by the end of their names.
var kinds = map[string]string{".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml"}

const assetPath = "/static/"

// assets are files for browsers, each at a URL with the beginning of its hash, which never changes. Immutable.
type assets struct {
	urls  map[string]string // by name: "live.js"
	files map[string][]byte // by path below assetPath
}

func openAssets() (*assets, error) {
	a := &assets{urls: map[string]string{}, files: map[string][]byte{}}
	err := fs.WalkDir(static, "static", func(file string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasPrefix(d.Name(), ".") {
			return err
		}
		b, err := static.ReadFile(file)
		if err != nil {
			return err
		}
		sum := sha256.Sum256(b)
		name, ext := strings.TrimPrefix(file, "static/"), path.Ext(file)
		hashed := strings.TrimSuffix(name, ext) + "." + hex.EncodeToString(sum[:6]) + ext
		a.urls[name], a.files[hashed] = assetPath+hashed, b
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the console's files: %w", err)
	}
	return a, nil
}

// url returns the URL of a file; one that was not built in is asked for by its name, and not found.
func (a *assets) url(name string) string {
	if u := a.urls[name]; u != "" {
		return u
	}
	return assetPath + name
}

func (a *assets) has(name string) bool { return a.urls[name] != "" }

func (a *assets) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name := strings.TrimPrefix(r.URL.Path, assetPath)
	b, ok := a.files[name]
	if !ok {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
	w.Header().Set("Content-Type", kinds[path.Ext(name)])
	http.ServeContent(w, r, name, time.Time{}, bytes.NewReader(b))
}
