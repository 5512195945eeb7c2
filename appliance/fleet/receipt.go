package fleet

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"slices"

	"github.com/fxamacker/cbor/v2"

	"seedbed/appliance/job"
	"seedbed/images"
)

// frames decodes job.OldFrame with bounds; a table has at most a few thousand regions (one per logical partition).
var frames = func() cbor.DecMode {
	mode, err := cbor.DecOptions{
		DupMapKey: cbor.DupMapKeyEnforcedAPF, IndefLength: cbor.IndefLengthForbidden, TagsMd: cbor.TagsForbidden,
		MaxArrayElements: 4096, MaxNestedLevels: 8,
	}.DecMode()
	if err != nil {
		panic(err) // options are constants
	}
	return mode
}()

// AtWork returns a Refusal unless the caller holds, or held, the claim of a job.
func (f *Fleet) AtWork(c Caller) error {
	_, err := knowing(f, func() (_ struct{}, err error) {
		f.mu.RLock()
		defer f.mu.RUnlock()
		its := func(j *Job) bool { return j.Session == c.session.ID }
		if slices.ContainsFunc(f.todo[c.session.Machine], its) {
			return struct{}{}, nil
		}
		for _, j := range f.state.jobs { // one that has ended
			if its(j) {
				return struct{}{}, nil
			}
		}
		return struct{}{}, refuse(CodeJobUnknown, "this machine has no job")
	})
	return err
}

// Bounds of the old tables that are kept: of one job, different ones and their bytes, which are two of the largest; and of one machine,
// jobs and bytes, of which the oldest jobs' go first.
const (
	maxFrames        = 8
	maxFramesLength  = 2 * (images.MaxFrameLength + 4<<20)
	maxSaved         = 32
	maxSavedOfLength = 512 << 20
)

// Frame keeps what lay on a machine's disk outside its partitions; when it returns nil that is durable. The same again writes nothing.
func (f *Fleet) Frame(ctx context.Context, c Caller, raw []byte) error {
	var old job.OldFrame
	if err := frames.Unmarshal(raw, &old); err != nil {
		return refuse(CodeInvalid, "the saved frame cannot be read: %v", err)
	}
	if len(old.Disk) > maxWord {
		return refuse(CodeInvalid, "the saved frame is of a disk whose name has %d bytes", len(old.Disk))
	}
	digest := images.Sum(raw)
	return f.change(ctx, func(d *draft) error {
		j := d.job(old.Job)
		switch {
		case j == nil || j.Machine != c.session.Machine || j.Session != c.session.ID:
			return refuse(CodeJobUnknown, "this machine has no job %q", old.Job)
		case j.State.Ended():
			return refuse(CodeJobEnded, "job %s has already %s", j.ID, j.State)
		case slices.Contains(j.Frames, digest):
			return nil // the answer was lost
		case len(j.Frames) >= maxFrames || len(j.Frames) > 0 && j.FramesLength+int64(len(raw)) > maxFramesLength:
			return refuse(CodeInvalid, "%d partition tables are kept for job %s, of %d bytes, and no more are; look what keeps changing the disk, and order the job anew",
				len(j.Frames), j.ID, j.FramesLength)
		}
		own := d.editJob(j)
		own.Frames, own.FramesLength = append(slices.Clone(j.Frames), digest), j.FramesLength+int64(len(raw))
		d.save(own, int64(len(raw)))
		d.facts.frames = append(d.facts.frames, Frame{Job: j.ID, Digest: digest, At: f.now().UTC(), Bytes: bytes.Clone(raw)})
		d.event(Event{Kind: "job.frame", Machine: j.Machine, Job: j.ID, Deployment: j.Deployment,
			Text: "the old partition table of disk " + old.Disk + " is kept"})
		return nil
	})
}

// save counts a frame of a job among those of its machine, and has those of the oldest jobs deleted that are too many.
func (d *draft) save(j *Job, length int64) {
	m := d.machine(j.Machine)
	if m == nil {
		return
	}
	own := d.editMachine(m)
	saved := slices.Clone(m.Saved)
	if i := slices.IndexFunc(saved, func(s Saved) bool { return s.Job == j.ID }); i >= 0 {
		length += saved[i].Length
		saved = slices.Delete(saved, i, i+1)
	}
	saved = append(saved, Saved{j.ID, length})
	total := int64(0)
	for _, s := range saved {
		total += s.Length
	}
	for len(saved) > 1 && (len(saved) > maxSaved || total > maxSavedOfLength) {
		d.facts.unframe = append(d.facts.unframe, saved[0].Job)
		total -= saved[0].Length
		saved = saved[1:]
	}
	own.Saved = saved
}

// Receipt checks the proof of a job against its image, countersigns it and ends the job. The same receipt again gets the
// same answer, since an answer may be lost.
func (f *Fleet) Receipt(ctx context.Context, c Caller, signed job.SignedReceipt) (job.Countersigned, error) {
	var r job.Receipt
	if err := json.Unmarshal(signed.Receipt, &r); err != nil {
		return job.Countersigned{}, refuse(CodeReceiptWrong, "the receipt cannot be read: %v", err)
	}
	if err := checkSignature(c.session.PublicKey, signed); err != nil {
		return job.Countersigned{}, err
	}
	j, err := knowing(f, func() (*Job, error) {
		f.mu.RLock()
		defer f.mu.RUnlock()
		j := f.state.jobs[r.Job]
		if j == nil || j.Machine != c.session.Machine || r.Machine != j.Machine {
			return nil, refuse(CodeJobUnknown, "this machine has no job %q", r.Job)
		}
		return j, nil
	})
	if err != nil {
		return job.Countersigned{}, err
	}
	var manifest *images.Manifest
	if j.Kind.OfImage() {
		image, err := f.config.Library.Image(ctx, j.Image.String())
		if err != nil {
			return job.Countersigned{}, err
		}
		manifest = image.Manifest
	}
	if err := checkReceipt(&r, j, manifest); err != nil {
		return job.Countersigned{}, err
	}
	stored, err := f.config.Records.Receipt(ctx, j.ID)
	if err != nil {
		return job.Countersigned{}, err
	}
	if stored != nil {
		if bytes.Equal(stored.Receipt, signed.Receipt) {
			return job.Countersigned{Signature: stored.Countersignature}, nil
		}
		return job.Countersigned{}, refuse(CodeJobEnded, "job %s has a receipt already", j.ID)
	}
	countersignature := f.config.Authority.Countersign(signed.Receipt)
	err = f.change(ctx, func(d *draft) error {
		return d.succeed(c, &r, signed, manifest, countersignature)
	})
	if err != nil {
		return job.Countersigned{}, err
	}
	f.mu.Lock()
	last := f.state.jobs[j.ID].Last
	f.traffic.add(f.live[j.ID].report, last)
	f.live[j.ID] = live{report: last, at: f.now()}
	f.mu.Unlock()
	return job.Countersigned{Signature: countersignature}, nil
}

// succeed ends a job with its receipt; manifest is that of its image, nil where it is about none.
func (d *draft) succeed(c Caller, r *job.Receipt, signed job.SignedReceipt, manifest *images.Manifest, countersignature []byte) error {
	j := d.job(r.Job)
	switch {
	case j == nil || j.Session != c.session.ID:
		return refuse(CodeClaimLost, "job %s was claimed by a later boot of this machine", r.Job)
	case j.State.Ended():
		return refuse(CodeJobEnded, "job %s has already %s", j.ID, j.State)
	}
	now := d.f.now().UTC()
	own := d.editJob(j)
	final := signed.Final
	bound(&final)
	final.Bitmap, final.Liars, final.Screen, final.Log, final.Job, final.Epoch = nil, nil, nil, "", j.ID, j.Epoch
	final.Found = r.Found
	own.Last, own.HeldByOperator, own.Unproven, own.Wiped = final, false, r.Unproven, r.Wiped
	d.end(own, job.Succeeded, "", outcome(own, r, final.Disk))
	d.facts.receipts = append(d.facts.receipts, Receipt{
		Job: j.ID, At: now, Receipt: signed.Receipt, Signature: signed.Signature, Countersignature: countersignature,
	})
	m := d.machine(j.Machine)
	switch {
	case m == nil:
	case j.Kind == job.WipeDisk:
		if m.Deployed != nil && (m.Deployed.DiskSerial == r.DiskSerial || m.Deployed.Disk == final.Disk) {
			d.editMachine(m).Deployed = nil
		}
	case manifest != nil:
		volume, partition := esp(manifest)
		if final.BIOSDrive == 0 {
			final.BIOSDrive = biosDrive(m, final.Disk, r.DiskSerial)
		}
		written := now
		if j.Kind != job.Deploy && m.Deployed != nil && m.Deployed.Image == j.Image {
			written = m.Deployed.written()
		}
		d.editMachine(m).Deployed = &Deployed{Written: written,
			Image: j.Image, ImageName: j.ImageName, Job: j.ID, Disk: final.Disk, DiskSerial: r.DiskSerial,
			BIOSDrive: final.BIOSDrive, ESPVolumeID: volume, ESPPartition: partition, At: now, Unverified: len(r.Unproven) > 0, Kept: r.Kept,
		}
	}
	return nil
}

// biosDrive returns the INT 13h number of a disk as the machine's inventory tells it, 0 if it does not.
func biosDrive(m *Machine, name, serial string) int {
	if m.Inventory == nil {
		return 0
	}
	for _, disk := range m.Inventory.Disks {
		if disk.Name == name && disk.Serial == serial {
			return disk.BIOSDrive
		}
	}
	return 0
}

func checkSignature(publicKey []byte, signed job.SignedReceipt) error {
	key, err := x509.ParsePKIXPublicKey(publicKey)
	if err != nil {
		return refuse(CodeReceiptWrong, "the agent's key cannot be read: %v", err)
	}
	sum := sha256.Sum256(signed.Receipt)
	if ec, ok := key.(*ecdsa.PublicKey); !ok || !ecdsa.VerifyASN1(ec, sum[:], signed.Signature) {
		return refuse(CodeReceiptWrong, "the receipt is not signed by the key of this boot")
	}
	return nil
}

// Claimed returns the images of the jobs that the caller holds the claim of: what it may read.
func (f *Fleet) Claimed(c Caller) (list []images.Digest) {
	if list = f.claimed(c); len(list) == 0 && f.config.Records.Shared() && f.refresh() == nil { // claimed at another appliance just now
		list = f.claimed(c)
	}
	return list
}

func (f *Fleet) claimed(c Caller) (list []images.Digest) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if s := f.state.sessions[c.session.ID]; s != nil && s.Guest != nil {
		return s.Guest.Images
	}
	for _, j := range f.state.jobs {
		if j.Session == c.session.ID && j.Kind.OfImage() {
			list = append(list, j.Image)
		}
	}
	return list
}
