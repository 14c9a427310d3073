//! The attacks, in the image and with the rights of a pod.

use anyhow::{Result, ensure};

use crate::container::Node;

/// Runs the harness in place of the runner; it starts runners of its own. What it says is shown whatever comes of it.
pub async fn attacks(node: &Node) -> Result<()> {
    let mut pod = node.create("harness").await?;
    pod.start().await?;
    let code = pod.wait().await;
    println!("{}", pod.log().await.trim_end());
    ensure!(code? == 0, "something got through, or could not be tried");
    Ok(())
}
