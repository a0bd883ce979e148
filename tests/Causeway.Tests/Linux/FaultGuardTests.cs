using System.Runtime.InteropServices;
using Causeway.Linux;
using Causeway.Tests.Daemon;
using Causeway.Tests.Passthrough;
using Microsoft.Win32.SafeHandles;

namespace Causeway.Tests.Linux;

/// <summary>Pages that are not there, and who survives touching them.</summary>
public sealed class FaultGuardTests
{
    private const ulong Granule = FaultGuard.GranuleBytes;

    [Fact]
    public void The_handler_is_what_its_source_assembles_to()
    {
        string source = Path.Combine(DaemonProcess.RepositoryRoot, "src", "Causeway.Linux", "FaultGuard.x64.s");
        Assert.SkipUnless(
            RuntimeInformation.ProcessArchitecture == Architecture.X64 && File.Exists("/usr/bin/as"),
            "NOT CHECKED: no assembler for x86-64 (as); install binutils");
        using TemporaryDirectory directory = new();
        Host.Run("as", "-o", directory.File("handler.o"), source);
        Host.Run("objcopy", "-O", "binary", "-j", ".text", directory.File("handler.o"), directory.File("handler.bin"));
        Assert.Equal(File.ReadAllBytes(directory.File("handler.bin")), FaultGuard.Handler);
    }

    [Fact]
    public unsafe void Touching_what_is_not_there_gives_zeros_and_a_flag()
    {
        Assert.SkipUnless(RuntimeInformation.ProcessArchitecture == Architecture.X64, "no handler for this processor");
        using SafeFileHandle file = Memory.CreateMemoryFile("causeway-test\0"u8, 8192, FileSeals.None);
        var address = (byte*)Memory.Mmap(
            null, (nuint)(2 * Granule), MemoryProtection.Read | MemoryProtection.Write, MapFlags.Shared, (int)file.DangerousGetHandle(), 0)
            .ThrowIfError("map").RawValue;
        using (FaultGuard guard = FaultGuard.TryCreate(address, 2 * Granule)!)
        {
            address[8191] = 5;
            Assert.Equal(0, guard.Count);
            Assert.Equal(0, address[8192]);
            Assert.True(guard.IsHit(0));
            Assert.False(guard.IsHit(1));

            // In the middle of a copy, of the runtime's own code, and for writing.
            new Span<byte>(address + Granule - 5000, 10_000).Fill(7);
            Assert.Equal(7, address[Granule - 5000]);
            Assert.True(guard.AreHit(1, 1));
            Assert.Equal(1 + 4, guard.Count);

            guard.Reset(1);
            Assert.False(guard.IsHit(1));
            Assert.Equal(5, address[8191]);
            Files.Ftruncate((int)file.DangerousGetHandle(), 0).ThrowIfError("truncate");
            Assert.Equal(0, address[8191]);
            Assert.Equal(6, guard.Count);
            _ = Memory.Munmap(address, (nuint)(2 * Granule));
        }
    }
}
