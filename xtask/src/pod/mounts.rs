//! What a container finds in its file system besides the image: what containerd mounts in each, and the pod's volumes,
//! which are folders that are made here as kubelet makes them.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::oci::{Cluster, Rights, known, list, text};
use super::quantity;
use crate::process;

/// What containerd mounts in every container, and the manifest's volumes.
pub fn mounts(
    folder: &Path,
    spec: &Value,
    container: &Value,
    rights: &Rights,
    cluster: &Cluster,
) -> Result<Vec<Value>> {
    let hosts = folder.join("hosts");
    fs::write(&hosts, cluster.hosts).with_context(|| format!("could not write {}", hosts.display()))?;
    let mut mounts = vec![
        json!({"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]}),
        json!({"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
            "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]}),
        json!({"destination": "/dev/pts", "type": "devpts", "source": "devpts",
            "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]}),
        json!({"destination": "/dev/shm", "type": "tmpfs", "source": "shm",
            "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]}),
        json!({"destination": "/sys", "type": "sysfs", "source": "sysfs",
            "options": ["nosuid", "noexec", "nodev", "ro"]}),
        json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
            "options": ["nosuid", "noexec", "nodev", "relatime", "ro"]}),
        json!({"destination": "/etc/hosts", "type": "bind", "source": hosts, "options": ["rbind", "ro"]}),
    ];
    for mount in list(container, "volumeMounts")? {
        known("volume mount", mount, &["mountPath", "name", "readOnly"])?;
        let (name, place) = (text(mount, "name")?, text(mount, "mountPath")?);
        let volume = list(spec, "volumes")?
            .iter()
            .find(|volume| volume["name"] == name)
            .with_context(|| format!("the pod has no volume {name}"))?;
        let home = folder.join("volumes").join(name);
        fs::create_dir_all(&home).with_context(|| format!("could not make {}", home.display()))?;
        let right = if mount["readOnly"] == true { "ro" } else { "rw" };
        mounts.push(
            fill(volume, &home, rights, cluster)?
                .unwrap_or_else(|| json!({"type": "bind", "source": home, "options": ["rbind", right]})),
        );
        if let Some(mount) = mounts.last_mut() {
            mount["destination"] = place.into();
        }
    }
    Ok(mounts)
}

/// Gives a folder to a group, and opens it. Only root may do that for a group that is not one's own.
fn open(folder: &Path, group: u32) -> Result<()> {
    let own =
        chown(folder, None, Some(group)).and_then(|()| fs::set_permissions(folder, PermissionsExt::from_mode(0o2777)));
    if own.is_ok() {
        return Ok(());
    }
    for (program, right) in [("chgrp", group.to_string()), ("chmod", "2777".to_owned())] {
        process::as_root("opening a volume for the pod", program)?
            .arg(right)
            .arg(folder)
            .read()?;
    }
    Ok(())
}

/// Makes a volume in a folder, as kubelet does. Gives the mount when that is none of the folder.
fn fill(volume: &Value, home: &Path, rights: &Rights, cluster: &Cluster) -> Result<Option<Value>> {
    if let Some(empty) = volume.get("emptyDir") {
        known("emptyDir", empty, &["medium", "sizeLimit"])?;
        // Every user may write to it, and what is made in it belongs to the pod's group.
        let group = u32::try_from(rights.volumes).context("the pod's fsGroup is no group")?;
        open(home, group)?;
        if empty["medium"] == "Memory" {
            let size = quantity::bytes(&empty["sizeLimit"])?;
            let size = size.map(|size| format!("size={size}"));
            let options: Vec<String> = ["nosuid", "nodev", "mode=1777"]
                .map(str::to_owned)
                .into_iter()
                .chain(size)
                .collect();
            return Ok(Some(json!({"type": "tmpfs", "source": "tmpfs", "options": options})));
        }
        return Ok(None);
    }
    if let Some(name) = volume["configMap"]["name"].as_str() {
        for (key, value) in cluster.config_map(name)? {
            let file = home.join(key);
            fs::write(&file, value.as_str().unwrap_or_default())
                .with_context(|| format!("could not write {}", file.display()))?;
        }
        return Ok(None);
    }
    if let Some(secret) = volume.get("secret") {
        known("secret", secret, &["defaultMode", "secretName"])?;
        let name = text(secret, "secretName")?;
        let mode = secret["defaultMode"].as_u64().and_then(|mode| u32::try_from(mode).ok());
        let mode = mode.with_context(|| format!("{volume}: the secret has no defaultMode"))?;
        let group = u32::try_from(rights.volumes).context("the pod's fsGroup is no group")?;
        lay_out_secret(home, name, mode, group, cluster)?;
        return Ok(None);
    }
    bail!("{volume}: only volumes that are an emptyDir, a ConfigMap or a Secret are known here")
}

/// The keys of a Secret as kubelet has them: links into a folder that is replaced as a whole. The files are root's, and
/// the pod's group may read them.
fn lay_out_secret(home: &Path, name: &str, mode: u32, group: u32, cluster: &Cluster) -> Result<()> {
    let version = home.join("..2026_11_29");
    let made = || -> std::io::Result<()> {
        fs::create_dir(&version)?;
        symlink("..2026_11_29", home.join("..data"))
    };
    made().with_context(|| format!("could not make {}", version.display()))?;
    let keys: Vec<_> = cluster.secrets.iter().filter(|secret| secret.0 == name).collect();
    ensure!(!keys.is_empty(), "there is no Secret {name}");
    for (_, key, value) in keys {
        let file = version.join(key);
        let made = fs::write(&file, value)
            .and_then(|()| fs::set_permissions(&file, PermissionsExt::from_mode(mode)))
            .and_then(|()| symlink(format!("..data/{key}"), home.join(key)));
        made.with_context(|| format!("could not make {}", file.display()))?;
        if chown(&file, None, Some(group)).is_err() {
            process::as_root("giving a Secret to the pod", "chgrp")?
                .arg(group.to_string())
                .arg(&file)
                .read()?;
        }
    }
    Ok(())
}
