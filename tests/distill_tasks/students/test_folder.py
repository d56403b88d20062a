from distill_tasks.students.folder import count_parameters, measure_disk_mb


def test_an_empty_folder_has_no_weights_and_no_size(tmp_path):
    assert (count_parameters(tmp_path), measure_disk_mb(tmp_path)) == (0, 0)
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "file").write_bytes(b"x" * 1500)
    assert measure_disk_mb(tmp_path) == 0.0015
