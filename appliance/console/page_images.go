package console

import (
	"cmp"
	"context"
	"errors"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"seedbed/appliance/api"
	"seedbed/appliance/fleet"
)

// imagesPage lists the images, and what is done with them at this moment.
var imagesPage = &page{path: "/images", name: "images", nav: text("Images"), data: imagesData, live: imagesLive, scripts: []string{"upload.js"}, routes: []route{
	{pattern: "POST /images/verify", role: fleet.RoleOperator, serve: verifyImages},
	{pattern: "POST /images/works/{work}/cancel", role: fleet.RoleOperator, serve: cancelWork},
	{pattern: "GET /images/prune", role: fleet.RoleAdmin, serve: pruneDialog},
	{pattern: "POST /images/prune", role: fleet.RoleAdmin, serve: pruneImages},
	{pattern: "GET /images/upload", role: fleet.RoleOperator, serve: uploadDialog},
	{pattern: "PUT " + uploadPath, role: fleet.RoleOperator, serve: upload},
}}

// imageWorks are the kinds of work that the pages of images show.
var imageWorks = []longKind{verifying, taking, pruning}

// family is all versions of one image, the latest first.
type family struct {
	Name     string
	Versions []imageRow
	Alone    bool // there is no other, and it needs no heading
}

// ID is that of its rows in the document.
func (f family) ID() string { return "family-" + f.Name }

// imageRow is one version.
type imageRow struct {
	api.ImageListing
	Ref string // "debian:2"
	URL string
	// Machines is how many hold it, Deploying how many jobs bring it to some.
	Machines, Deploying int
	Checked             *checked // nil: not in this run of the appliance
}

// checked is what the last verification found.
type checked struct {
	At     time.Time
	Whole  bool
	Damage []api.Damage
	More   int
}

type imagesView struct {
	Families []family
	Works    []workRow
	Uploads  bool // disks can be uploaded
}

// workRow is work as people read it.
type workRow struct {
	longWork
	Text   string // "debian:2 is verified"
	Result string // what became of it, "" while it goes on
	Bad    bool
	URL    string
	Damage []api.Damage
	Prune  *api.PruneReport
	Speed  float64       // bytes a second since it began, 0 before the first second
	Left   time.Duration // at this speed, 0 is not known
}

func imagesData(c *console, v *visit) (any, error) {
	view := &imagesView{Works: c.workRows(v, ""), Uploads: c.Spool != nil}
	list, err := c.listImages(v.Context())
	if err != nil {
		return nil, err
	}
	view.Families = families(c.imageRows(list))
	return view, nil
}

// imageRows adds to images who has them and what is known of their health.
func (c *console) imageRows(list []api.ImageListing) []imageRow {
	rows, held, coming := make([]imageRow, 0, len(list)), map[string]int{}, map[string]int{}
	for _, m := range c.Fleet.Machines() {
		if m.Deployed != nil {
			held[m.Deployed.Image.String()]++
		}
	}
	for _, j := range c.Fleet.Jobs() {
		if j.Deployment != "" && !j.State.Ended() {
			coming[j.Image.String()]++
		}
	}
	for _, i := range list {
		ref := i.Name + ":" + i.Version
		d := i.Digest.String()
		rows = append(rows, imageRow{i, ref, "/images/" + url.PathEscape(ref), held[d], coming[d], c.checkedAt(ref)})
	}
	return rows
}

// families groups versions by their image's name.
func families(rows []imageRow) (list []family) {
	byName := map[string]int{}
	for _, r := range rows {
		i, ok := byName[r.Name]
		if !ok {
			i = len(list)
			byName[r.Name], list = i, append(list, family{Name: r.Name})
		}
		list[i].Versions = append(list[i].Versions, r)
	}
	slices.SortFunc(list, func(a, b family) int { return strings.Compare(a.Name, b.Name) })
	for i, f := range list {
		list[i].Alone = len(list) == 1
		slices.SortFunc(f.Versions, func(a, b imageRow) int {
			return cmp.Or(b.Created.Compare(a.Created), cmp.Compare(len(b.Version), len(a.Version)), strings.Compare(b.Version, a.Version))
		})
	}
	return list
}

// checkedAt returns what the last verification in this run of the appliance found of an image.
func (c *console) checkedAt(ref string) *checked {
	for _, o := range c.works.of(verifying) {
		report, ok := o.Result.(*api.VerifyReport)
		if !ok || o.Err != nil {
			continue
		}
		for _, i := range report.Images {
			if i.Image == ref {
				return &checked{o.Ended, i.IsWhole(), i.Damage, i.More}
			}
		}
	}
	return nil
}

// workRows returns the work on images, or on one.
func (c *console) workRows(v *visit, ref string) (rows []workRow) {
	for _, o := range c.works.of(imageWorks...) {
		if ref == "" || o.About == ref || o.Kind == verifying && o.About == "" {
			rows = append(rows, v.workRow(o))
		}
	}
	return rows
}

// workRow says in words what work does and what became of it.
func (v *visit) workRow(o longWork) workRow {
	r := workRow{longWork: o, URL: "/images/" + url.PathEscape(o.About)}
	switch o.Kind {
	case verifying:
		if r.Text = v.t("Verify %s", o.About); o.About == "" {
			r.Text, r.URL = v.t("Verify all images"), ""
		}
	case taking:
		r.Text = v.t("Make image %s of an uploaded disk", o.About)
	case pruning:
		r.Text, r.URL = v.t("Free room"), ""
	}
	if took := time.Since(o.Began).Seconds(); o.Ended.IsZero() && took > 1 {
		r.Speed = float64(o.Done) / took
		if r.Speed > 0 && o.Total > o.Done {
			r.Left = time.Duration(float64(o.Total-o.Done) / r.Speed * float64(time.Second))
		}
	}
	switch {
	case o.Ended.IsZero():
	case o.Cancelled:
		r.Result = v.t("cancelled")
	case o.Err != nil:
		r.Result, r.Bad = v.sentence(o.Err), true
	default:
		v.ended(&r)
	}
	return r
}

// ended says what work has found or made.
func (v *visit) ended(r *workRow) {
	switch result := r.longWork.Result.(type) {
	case *api.VerifyReport:
		damaged := 0
		for _, i := range result.Images {
			r.Damage = append(r.Damage, i.Damage...)
			if !i.IsWhole() {
				damaged++
			}
		}
		switch {
		case damaged > 0:
			r.Result, r.Bad = v.t("%d of %d images are damaged. `seedbed image verify --all --heal` on the appliance looks for other copies; else capture them again.", damaged, len(result.Images)), true
		case len(r.Damage) > 0:
			r.Result = v.t("whole again: what was damaged was replaced by a right copy")
		default:
			r.Result = v.t("whole: every part has its hash, and the signature is this site's")
		}
	case *api.PruneReport:
		r.Prune = result
		r.Result = v.t("%s are freed, %s marked to be freed later", Bytes(result.Deleted.Bytes), Bytes(result.Marked.Bytes+result.Waiting.Bytes))
	case *api.ImageDetail:
		ref := result.Manifest.Name + ":" + result.Manifest.Version
		r.URL = "/images/" + url.PathEscape(ref)
		r.Result = v.t("image %s is there, with %s of data", ref, Bytes(result.Manifest.UsedLength()))
	default:
		r.Result = v.t("done")
	}
}

func imagesLive(c *console, v *visit) (*live, error) {
	rows, err := c.recentRows(v.Context())
	if err != nil {
		return nil, err
	}
	list := families(rows)
	l := &live{parts: []part{v.part("images", "images-verify", "", "verifyall", list), v.part("images", "images-none", "", "none", list)}}
	before := ""
	for _, f := range slices.Backward(list) { // a new one stands before the next, which is in the document then
		p := v.part("images", f.ID(), "images-table", "family", f)
		p.Before, before = before, f.ID()
		l.parts = append(l.parts, p)
	}
	l.parts = append(l.parts, v.worksLive("images", c.workRows(v, ""))...)
	return l, nil
}

// worksLive are the live parts of work: how far it is changes often, so that it is a part of its own beside the button that cancels it.
func (v *visit) worksLive(template string, rows []workRow) (parts []part) {
	for _, r := range rows {
		id := "work-" + strconv.Itoa(r.ID)
		parts = append(parts, v.part(template, id, "works", "work", r))
		if r.Ended.IsZero() {
			parts = append(parts, v.part(template, id+"-far", "", "far", r))
		}
	}
	return parts
}

// noImages is the refusal of a console without a repository.
func (c *console) noImages() error {
	if c.Images != nil {
		return nil
	}
	return &fleet.Refusal{Code: fleet.CodeInvalid, Detail: text("this appliance has no images here")}
}

// verifyImages begins to read and hash an image, or all.
func verifyImages(c *console, v *visit) (*answer, error) {
	ref := strings.TrimSpace(v.FormValue("image"))
	heal := v.FormValue("heal") != ""
	if err := c.noImages(); err != nil {
		return nil, err
	}
	if ref != "" {
		if _, err := c.Images.Show(v.Context(), ref); err != nil {
			return nil, err
		}
	}
	_, err := c.works.begin(v.Context(), verifying, ref, func(ctx context.Context, progress func(api.Progress)) (any, error) {
		r, err := c.Images.Verify(ctx, api.VerifyOrder{Image: ref, Heal: heal}, progress)
		if err != nil {
			return nil, err
		}
		for _, e := range r.Events(ref == "", true) {
			err = errors.Join(err, c.Fleet.Note(context.WithoutCancel(ctx), e.Kind, e.Text))
		}
		return r, err
	})
	if err != nil {
		return nil, err
	}
	return say(v.t("Verification has begun. It goes on when you leave this page.")), nil
}

// cancelWork ends work that somebody began.
func cancelWork(c *console, v *visit) (*answer, error) {
	id := number(v.PathValue("work"))
	for _, o := range c.works.of(imageWorks...) {
		if o.ID != id {
			continue
		}
		if o.Kind == pruning {
			if err := fleet.May(v.Context(), fleet.RoleAdmin, "cancel this"); err != nil {
				return nil, err
			}
		}
		c.works.stop(id)
		return say(v.t("It is being cancelled.")), nil
	}
	return nil, &fleet.Refusal{Code: fleet.CodeInvalid, Detail: text("this has ended already")}
}

// pruneDialog says what would be freed.
func pruneDialog(c *console, v *visit) (*answer, error) {
	if err := c.noImages(); err != nil {
		return nil, err
	}
	r, err := c.Images.Prune(v.Context(), api.PruneOrder{DryRun: true}, nil)
	if err != nil {
		return nil, err
	}
	return show("images", "prune", r), nil
}

// pruneImages frees the room of what no image uses.
func pruneImages(c *console, v *visit) (*answer, error) {
	if err := c.noImages(); err != nil {
		return nil, err
	}
	_, err := c.works.begin(v.Context(), pruning, "", func(ctx context.Context, progress func(api.Progress)) (any, error) {
		r, err := c.Images.Prune(ctx, api.PruneOrder{}, progress)
		if err == nil {
			err = c.Fleet.Note(context.WithoutCancel(ctx), "image.pruned", "a person had the room freed of what no image uses")
		}
		return r, err
	})
	if err != nil {
		return nil, err
	}
	return goTo("/images", v.t("Room is being freed.")), nil
}
