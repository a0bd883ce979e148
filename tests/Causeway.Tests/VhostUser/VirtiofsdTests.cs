using System.Diagnostics;
using Causeway.Tests.Driver;
using Causeway.VhostUser.Frontend;
using Causeway.VhostUser.Messages;
using Causeway.Virtio;

namespace Causeway.Tests.VhostUser;

/// <summary>The front end against somebody else's back end.</summary>
public sealed class VirtiofsdTests
{
    [Fact]
    public void The_front_end_starts_logs_stops_and_restarts_the_rust_daemon()
    {
        string program = ForeignDaemon.RustProgram();
        Assert.SkipUnless(File.Exists(program), "there is no virtiofsd; 'eng/guest-platform newer' fetches it");
        string directory = Directory.CreateTempSubdirectory("causeway").FullName;
        string path = Path.Combine(directory, "s");
        using Process daemon = Process.Start(
            new ProcessStartInfo(program, ["--socket-path", path, "--shared-dir", directory, "--sandbox", "none", "--tag", "t"])
            {
                RedirectStandardError = true,
            })!;
        try
        {
            WaitForReady(daemon, path);
            Drive(path);
            Assert.True(daemon.WaitForExit(TimeSpan.FromSeconds(30)), "virtiofsd does not end with its front end");
        }
        finally
        {
            if (!daemon.HasExited)
            {
                daemon.Kill();
            }

            Directory.Delete(directory, recursive: true);
        }
    }

    private static void WaitForReady(Process daemon, string path)
    {
        // It says so on standard error once it listens; reading there is waiting with the daemon's end as the deadline.
        string? line = "";
        while (line is not null && !line.Contains("Waiting for vhost-user socket", StringComparison.Ordinal))
        {
            line = daemon.StandardError.ReadLine();
        }

        Assert.True(File.Exists(path), "virtiofsd did not start");
    }

    private static void Drive(string path)
    {
        using TestMemory memory = new();
        using TestRing highPriority = new(0);
        using TestRing requests = new(1);
        using VhostUserFrontend frontend = VhostUserFrontend.Connect(path);

        frontend.Negotiate(new FrontendOptions());
        Assert.Equal(2, frontend.QueueCount);
        Assert.Equal(509, frontend.MemorySlots);
        byte[] config = new byte[40];
        frontend.GetConfig(0, config);
        Assert.Equal((byte)'t', config[0]);
        Assert.Equal(1, config[36]);

        frontend.ShareMemory(memory.Region);
        frontend.StartRing(highPriority.Description);
        frontend.StartRing(requests.Description);
        frontend.SetLogBase(memory.File, new LogArea(0x10000, 0x80000));
        frontend.LogWrites(isOn: true, (requests.Description, new GuestAddress(TestMemory.GuestBase.Value + 0x1a000)));
        frontend.LogWrites(isOn: false, (requests.Description, default));
        Assert.Equal(0u, frontend.StopRing(1));
        frontend.StartRing(requests.Description);
        Assert.Equal(0u, frontend.StopRing(0));
        Assert.Equal(0u, frontend.StopRing(1));
        frontend.ResetDevice();
        frontend.RemoveMemoryRegion(TestMemory.Range);
        Assert.True(frontend.IsConnected);
    }
}
