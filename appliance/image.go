package main

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"seedbed/appliance/api"
	"seedbed/images"
)

func imageCommand(o *options) *cobra.Command {
	cmd := &cobra.Command{Use: "image", Short: "Add, list and check images",
		Long: "The image commands let a running appliance do the work, else they open the repository themselves."}
	cmd.AddCommand(imageAdd(o), imageList(o), imageShow(o), imageVerify(o), imageExport(o), imageImport(o), imageDiff(o), imageRemove(o), imagePrune(o),
		imageOpen(o), imageClose(o), imageTorrent(o))
	return cmd
}

// withImages runs fn on the running appliance, or on the repository under its lock if none runs.
func (o *options) withImages(ctx context.Context, fn func(api.Images) error) error {
	c, err := o.client(os.Stdin)
	if err != nil {
		return err
	}
	defer c.Close()
	if c.Running(ctx) {
		return fn(c)
	}
	log, err := o.log()
	if err != nil {
		return err
	}
	lib, err := openLibrary(ctx, o.data, o.repository, log)
	if err == nil {
		lib.records, lib.recordsPassword = o.records, o.recordsPassword
	}
	if err != nil {
		return err
	}
	err = fn(lib)
	if closeErr := lib.close(); err == nil {
		err = closeErr
	}
	return err
}

func imageList(o *options) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{Use: "ls", Short: "List the images", Args: cobra.NoArgs}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return o.withImages(cmd.Context(), func(lib api.Images) error {
			list, err := lib.List(cmd.Context())
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), list)
			}
			t := newTable(cmd.OutOrStdout(), "NAME", "VERSION", "DIGEST", "CREATED", "DISK", "USED", "STORED", "PARTITIONS", "SWARM")
			for _, i := range list {
				if i.Problem != "" {
					t.row(i.Name, i.Version, i.Digest.Short(), i.Problem)
					continue
				}
				t.row(i.Name, i.Version, i.Digest.Short(), timeText(i.Created), bytesText(i.DiskLength), bytesText(i.UsedLength), bytesText(i.EncodedLength), i.Partitions, openText(i.Open))
			}
			return t.flush()
		})
	}
	return cmd
}

func imageShow(o *options) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{Use: "show IMAGE", Short: "Show what an image consists of", Args: cobra.ExactArgs(1), ValidArgsFunction: o.completes(1, imageNames)}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return o.withImages(cmd.Context(), func(lib api.Images) error {
			d, err := lib.Show(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			u, err := lib.Usage(cmd.Context(), d.Digest.String())
			if cmd.Context().Err() != nil {
				return err
			}
			if err != nil { // another image may be damaged
				fmt.Fprintln(cmd.ErrOrStderr(), "warning: what it takes and shares is not known:", err)
				u = nil
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), struct {
					*api.ImageDetail
					Usage *api.ImageUsage `json:"usage"`
				}{d, u})
			}
			return printImage(cmd.OutOrStdout(), d, u)
		})
	}
	return cmd
}

func printImage(w io.Writer, d *api.ImageDetail, u *api.ImageUsage) error {
	m := d.Manifest
	signed := "by this site"
	if !d.Signed {
		signed = "NOT by this site"
	}
	fmt.Fprintf(w, "image     %s:%s\ndigest    %s\nsigned    %s\ncreated   %s\ndisk      %s, sectors of %d bytes, table %s\nused      %s\n",
		m.Name, m.Version, d.Digest, signed, timeText(m.CreatedAt()), bytesText(m.DiskLength), m.SectorLength, m.Frame.Table, bytesText(m.UsedLength()))
	if u == nil {
		fmt.Fprintf(w, "pieces    %s\ninfohash  %s\n", bytesText(m.PieceLength), d.InfoHash)
	} else {
		printUsage(w, d, u)
	}
	printOpenState(w, d.Open)
	if m.Origin != "" {
		fmt.Fprintf(w, "origin    %s\n", plain(m.Origin))
	}
	for i := range m.Partitions {
		for _, name := range m.Partitions[i].Dropped {
			fmt.Fprintf(w, "dropped   partition %d: %s\n", m.Partitions[i].Number, plain(name))
		}
	}
	fmt.Fprintln(w)
	t := newTable(w, "PARTITION", "OFFSET", "LENGTH", "FILE SYSTEM", "UUID", "MAP", "USED", "DATA", "LABEL")
	for i := range m.Partitions {
		p := &m.Partitions[i]
		t.row(p.Number, p.Offset, bytesText(p.Length), dash(p.FS), dash(p.FSUUID), p.MapKind, bytesText(p.UsedLength), bytesText(p.DataTiles*images.TileLength), dash(p.Label))
	}
	return t.flush()
}

// printUsage says what an image takes.
func printUsage(w io.Writer, d *api.ImageDetail, u *api.ImageUsage) {
	m := d.Manifest
	fmt.Fprintf(w, "data      %s\nstored    %s, %s of the data, in %d packs; to send to a machine that has nothing\npieces    %s, %s reads each\ninfohash  %s\n",
		bytesText(u.DataLength), bytesText(u.EncodedLength), percent(u.EncodedLength, u.DataLength), u.Packs, bytesText(m.PieceLength),
		ratio(u.Requests, u.Pieces), d.InfoHash)
	for _, s := range u.Shared {
		fmt.Fprintf(w, "shared    %s with %s, %s of what is stored\n", bytesText(s.Stored), s.Image, percent(s.Stored, u.Stored))
	}
	if len(u.Shared) > 0 {
		fmt.Fprintf(w, "own       %s that no other image has\n", bytesText(u.Own))
	}
}
