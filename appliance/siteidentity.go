package main

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"seedbed/appliance/configuration"
	"seedbed/appliance/fleet"
	"seedbed/appliance/site"
	"seedbed/images"
)

// Codes of refusals about the site's identity.
const (
	codeSiteOther   = "site-other" // another identity is there
	codeSiteMissing = "site-missing"
	codePassphrase  = "passphrase-wrong"
)

// maxPassphrase bounds a passphrase in bytes.
const maxPassphrase = 4 << 10

func siteCommand(o *options) *cobra.Command {
	cmd := &cobra.Command{Use: "site", Short: "Show the site's identity, and bring it to another appliance",
		Long: `The identity of a site is a key that signs images and receipts, and the authority by which machines and appliances know each
other. The first appliance makes it. All appliances of a site have the same: export it at the first, import it at each other
one before its first start. These commands work on the data directory; no appliance has to run.`}
	cmd.AddCommand(siteShow(o), siteExport(o), siteImport(o))
	return cmd
}

// siteDir is where an appliance keeps its site's identity.
func (o *options) siteDir() string { return filepath.Join(o.data, "site") }

// siteView is the public part of an identity.
type siteView struct {
	Fingerprint images.Digest `json:"fingerprint"` // SHA-256 of the authority's certificate, to which machines pin
	Key         string        `json:"site_key"`    // Ed25519, hexadecimal
	Folder      string        `json:"folder"`
}

func (o *options) siteViewOf(s *site.Site) siteView {
	return siteView{Fingerprint: s.Fingerprint(), Key: hex.EncodeToString(s.PublicKey()), Folder: o.siteDir()}
}

func siteShow(o *options) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{Use: "show", Short: "Print the fingerprint of the site's identity", Args: cobra.NoArgs}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		s, err := o.readSite()
		if err != nil {
			return err
		}
		v := o.siteViewOf(s)
		return tell(cmd, asJSON, v, "fingerprint %s\nsite key    %s\nfolder      %s\n", v.Fingerprint, v.Key, v.Folder)
	}
	return cmd
}

func (o *options) readSite() (*site.Site, error) {
	s, err := site.Read(o.siteDir())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &fleet.Refusal{Code: codeSiteMissing, Detail: fmt.Sprintf(
			"%s holds no identity of a site, or not all of it: `seedbed serve` makes one, `seedbed site import` brings that of another appliance", o.siteDir())}
	}
	return s, err
}

const passphraseUsage = "`FILE` with the passphrase, mode 0600, - for standard input (default: asked for on the terminal)"

func siteExport(o *options) *cobra.Command {
	var from string
	cmd := &cobra.Command{Use: "export FILE", Short: "Write the site's identity to a file, sealed with a passphrase", Args: cobra.ExactArgs(1),
		Long: `Export writes the site's keys into a new file of mode 0600, encrypted (XChaCha20-Poly1305, the key made of the passphrase by
Argon2id). Whoever has both is the site: keep them apart. The file is also the backup without which images and receipts can no
longer be made.`}
	asJSON := jsonFlag(cmd)
	cmd.Flags().StringVar(&from, "passphrase-file", "", passphraseUsage)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		s, err := o.readSite()
		if err != nil {
			return err
		}
		passphrase, err := readPassphrase(cmd.InOrStdin(), from, true)
		if err != nil {
			return err
		}
		sealed, err := s.Export(passphrase)
		if errors.Is(err, site.ErrShort) {
			return usageError{err}
		}
		if err != nil {
			return err
		}
		f, err := createSecret(args[0])
		if err == nil {
			err = fillSecret(f, sealed, nil)
		}
		if err != nil {
			return err
		}
		return tell(cmd, *asJSON, o.siteViewOf(s), "the identity with fingerprint %s is in %s; on the other appliance: `seedbed site import`\n", s.Fingerprint(), args[0])
	}
	return cmd
}

func siteImport(o *options) *cobra.Command {
	var from string
	cmd := &cobra.Command{Use: "import FILE", Short: "Take over the identity that another appliance of the site exported", Args: cobra.ExactArgs(1),
		Long: `Import puts the keys in FILE into the data directory, before the first start of this appliance. It is refused where another
identity is there already, since images and machines may rely on that: use a new data directory.`}
	asJSON := jsonFlag(cmd)
	cmd.Flags().StringVar(&from, "passphrase-file", "", passphraseUsage)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		f, err := os.Open(args[0])
		if err != nil {
			return err
		}
		defer f.Close()
		sealed, err := io.ReadAll(io.LimitReader(f, site.MaxExport+1))
		if err != nil {
			return err
		}
		passphrase, err := readPassphrase(cmd.InOrStdin(), from, false)
		if err != nil {
			return err
		}
		if err := os.MkdirAll(o.data, 0o700); err != nil {
			return fmt.Errorf("make the data directory: %w", err)
		}
		s, err := site.Import(o.siteDir(), sealed, passphrase)
		switch {
		case errors.Is(err, site.ErrOther):
			return &fleet.Refusal{Code: codeSiteOther, Detail: fmt.Sprintf("%v; this appliance belongs to another site. Use a new data directory (--data)", err)}
		case errors.Is(err, site.ErrPassphrase):
			return &fleet.Refusal{Code: codePassphrase, Detail: err.Error()}
		case err != nil:
			return fmt.Errorf("import %s: %w", args[0], err)
		}
		return tell(cmd, *asJSON, o.siteViewOf(s), "this appliance has the identity with fingerprint %s now\n", s.Fingerprint())
	}
	return cmd
}

// readPassphrase reads a passphrase from a file, "-" for standard input, or from the terminal, there twice where it is new.
func readPassphrase(stdin io.Reader, file string, fresh bool) ([]byte, error) {
	switch file {
	case "":
		return askPassphrase(fresh)
	case "-":
		return firstLine(stdin)
	}
	f, err := configuration.OpenSecret(file)
	if err != nil {
		return nil, fmt.Errorf("--passphrase-file: %w", err)
	}
	defer f.Close()
	return firstLine(f)
}

// firstLine reads a passphrase without its line's end.
func firstLine(r io.Reader) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxPassphrase+1))
	if err != nil {
		return nil, fmt.Errorf("read the passphrase: %w", err)
	}
	b, _, _ = bytes.Cut(b, []byte("\n"))
	b = bytes.TrimSuffix(b, []byte("\r"))
	if len(b) == 0 || len(b) > maxPassphrase {
		return nil, usageError{fmt.Errorf("the passphrase is empty, or longer than %d bytes", maxPassphrase)}
	}
	return b, nil
}
